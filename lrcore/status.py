"""What a training kernel returns. Below the door nothing raises: a status says what happened."""

OK = 0
DIVERGED = 1
PAUSED = 2

MEANING = {
    OK: "all steps were made",
    DIVERGED: "the loss is no longer a finite number; a smaller learning rate or time step is needed",
    PAUSED: "as many gradients were made as one call may take; the next call goes on with the same bits",
}

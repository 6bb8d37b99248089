"""What a training kernel returns. Below the door nothing raises: a status says what happened."""

OK = 0
DIVERGED = 1

MEANING = {
    OK: "all steps were made",
    DIVERGED: "the loss is no longer a finite number; a smaller learning rate or time step is needed",
}

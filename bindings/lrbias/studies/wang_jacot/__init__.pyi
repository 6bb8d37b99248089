from ._study import WangJacot as WangJacot

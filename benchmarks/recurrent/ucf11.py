"""The layer of the papers: frames of UCF11, 160 x 120 pixels of three colours, to an LSTM of 256.

Modes and parameters are those of Yang et al., "Tensor-Train Recurrent Neural Networks for Video
Classification", 2017, which the papers after it share.
"""

from compress.recurrent.modes import Modes

MODES = Modes((8, 20, 20, 18), (16, 4, 4, 4))
HIDDEN_SIZE = 256
BATCH = 16
STEPS = 6
MORE_STEPS = 12

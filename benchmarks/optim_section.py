"""Section ``optim`` of a benchmark that counts bytes: Adam without a moving average of the weights."""

from stages.training.optimizer import Optim

ADAM = Optim(
    kind="adam",
    learning_rate=1e-3,
    beta1=0.9,
    beta2=0.99,
    noise_floor=0.1,
    schedule="constant",
    average=0.0,
    shrink="none",
)

"""What a user of the Keras backend writes; Keras itself has no types, so its own classes count as anything."""

from typing import assert_type

import keras

from doconv_keras import DOConv2D, fold, inspect_model, overparameterize, save_checkpoint

model = keras.Sequential([keras.Input((8, 8, 3)), DOConv2D(4, 3, d_mul=9, padding="same")])
over = overparameterize(model, d_mul=12, where=["conv*"], in_place=False)
folded = fold(over)
assert_type(inspect_model(folded), dict[str, str])
save_checkpoint(folded, "net.safetensors", strict=False)

overparameterize(model, 9)  # error: by keyword only
inspect_model(model, 3)  # error: no second argument

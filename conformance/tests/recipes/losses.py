"""Prints the first losses in one framework, in a process of its own: `python losses.py FRAMEWORK VARIANT STEPS`."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "recipes"))

import recipe as recipes
import train
from data import load

framework, variant, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
recipe = recipes.load("digits")
data = load(**recipe.data)
trainer = train.new_trainer(recipe, data, framework, variant, 0, "cpu")
losses = []
for number, batch in zip(range(steps), train.endless(data, 0, recipe.batch), strict=False):
    losses.append(trainer.step(batch.x, batch.y, train.rate_at(recipe, 0.05, number, steps)))
before = trainer.predict(data.test.x)
trainer.fold()
after = trainer.predict(data.test.x)
print(json.dumps({"losses": losses, "before": before.tolist(), "after": after.tolist()}))

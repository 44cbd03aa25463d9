"""All 142 tasks as declarative recipes: source rows in, MetaICL's exact lines out."""

from metashot.data.recipes.loader import check_recipes, load_recipe, recipe_names
from metashot.data.recipes.metrics import metric_of, scoring_of, task_type
from metashot.data.recipes.recipe import DropCounts, Recipe

__all__ = [
    "DropCounts",
    "Recipe",
    "check_recipes",
    "load_recipe",
    "metric_of",
    "recipe_names",
    "scoring_of",
    "task_type",
]

"""What may be said: recipes are YAML, validated, with every default filled in."""

from tutelage.recipes.entries import settings_of as settings_of
from tutelage.recipes.entries import views_of as views_of
from tutelage.recipes.mistakes import first_mistake as first_mistake
from tutelage.recipes.mistakes import require_plain as require_plain
from tutelage.recipes.reading import apply_overrides as apply_overrides
from tutelage.recipes.reading import leave_open as leave_open
from tutelage.recipes.reading import packaged as packaged
from tutelage.recipes.reading import parse_overrides as parse_overrides
from tutelage.recipes.reading import read_mapping as read_mapping
from tutelage.recipes.recipe import SCHEMA as SCHEMA
from tutelage.recipes.recipe import DataRecipe as DataRecipe
from tutelage.recipes.recipe import Recipe as Recipe
from tutelage.recipes.recipe import dump as dump
from tutelage.recipes.recipe import json_schema as json_schema
from tutelage.recipes.recipe import left_open as left_open
from tutelage.recipes.recipe import plain as plain
from tutelage.recipes.recipe import read_recipe as read_recipe
from tutelage.recipes.recipe import source_entry as source_entry
from tutelage.recipes.recipe import validate as validate

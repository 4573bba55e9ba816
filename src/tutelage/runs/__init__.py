"""One recipe → one run folder, and what is asked of it later."""

from tutelage.runs.checking import check as check
from tutelage.runs.extras import NOTHING as NOTHING
from tutelage.runs.extras import Extras as Extras
from tutelage.runs.extras import measuring_code as measuring_code
from tutelage.runs.readings import evaluate as evaluate
from tutelage.runs.readings import evaluate_model as evaluate_model
from tutelage.runs.readings import named_source as named_source
from tutelage.runs.readings import read_test as read_test
from tutelage.runs.run import Run as Run
from tutelage.runs.run import train as train

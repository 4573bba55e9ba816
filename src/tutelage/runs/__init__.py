"""One recipe → one run folder, and what is asked of it later."""

from tutelage.runs.checking import check as check
from tutelage.runs.readings import evaluate as evaluate
from tutelage.runs.readings import read_test as read_test
from tutelage.runs.run import Run as Run
from tutelage.runs.run import train as train

"""One recipe → one run folder, and what is asked of it later."""

from tutelage.runs.answers import Answer as Answer
from tutelage.runs.answers import answers as answers
from tutelage.runs.answers import files_of as files_of
from tutelage.runs.checking import check as check
from tutelage.runs.exports import Exported as Exported
from tutelage.runs.exports import export as export
from tutelage.runs.extras import NOTHING as NOTHING
from tutelage.runs.extras import Extras as Extras
from tutelage.runs.extras import measuring_code as measuring_code
from tutelage.runs.opened import Opened as Opened
from tutelage.runs.opened import open_model as open_model
from tutelage.runs.readings import evaluate as evaluate
from tutelage.runs.readings import evaluate_model as evaluate_model
from tutelage.runs.readings import named_source as named_source
from tutelage.runs.readings import read_test as read_test
from tutelage.runs.run import Run as Run
from tutelage.runs.run import train as train
from tutelage.runs.timing import bench as bench

"""Networks in files that other runtimes run: written, read again, compared."""

from tutelage.exporting.card import card as card
from tutelage.exporting.extras import versions_of as versions_of
from tutelage.exporting.files import EXPORTED as EXPORTED
from tutelage.exporting.files import is_exported as is_exported
from tutelage.exporting.files import just_made as just_made
from tutelage.exporting.files import make as make
from tutelage.exporting.files import open_file as open_file
from tutelage.exporting.files import warm_up as warm_up
from tutelage.exporting.form import About as About
from tutelage.exporting.form import Form as Form
from tutelage.exporting.form import Precision as Precision
from tutelage.exporting.form import Target as Target
from tutelage.exporting.parity import Tolerance as Tolerance
from tutelage.exporting.parity import checked as checked
from tutelage.exporting.parity import compare as compare
from tutelage.exporting.parity import require_parity as require_parity
from tutelage.exporting.parity import usual as usual

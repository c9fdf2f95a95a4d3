"""What a page needs: the look of its figures, figures that move, tables, and a notebook's set-up.

Nothing of the library depends on this. Of the library it reads facts and stored results alone.
"""

from slingshot.pages.drawings import DRAWINGS
from slingshot.pages.figures import INK, PALETTE, SEQUENTIAL
from slingshot.pages.notebook import setup
from slingshot.pages.sliders import explore
from slingshot.pages.tables import Table, table

__all__ = ["DRAWINGS", "INK", "PALETTE", "SEQUENTIAL", "Table", "explore", "setup", "table"]

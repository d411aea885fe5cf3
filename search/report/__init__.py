"""The report: the result of a sweep as figures, tables and one page."""

"""Data at a site: the public schema, loading of files, encoding, and splits.

Files become a :class:`~fedsci.data.table.RawTable`, and with a :class:`~fedsci.data.schema.Schema` a
:class:`~fedsci.data.table.Table` that a model can learn from. Nothing here leaves the site.
"""

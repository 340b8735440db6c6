"""A small plug-in of every kind, which trains as it is; `app.new` copies it under names of the user's.

`my_KIND.py` holds `MyKind`, and `conf/KIND/my_KIND.yaml` its values.
"""

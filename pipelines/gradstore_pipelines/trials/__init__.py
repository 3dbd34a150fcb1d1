"""`selftest`: trials of the ranking on the user's own data, one kind of planted error each.

`run` is the whole of it: `sample` draws and plants, `like` makes a build as the store's own was, `trial` builds, ranks
and judges, `work` keeps what is done, `advice` recommends, `words` and `report` say it.
"""

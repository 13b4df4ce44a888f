"""Random small products, what is done with them, and what has to be published then.

`story` says once, as data, what a product is and what happens to it. `project` writes it for dbt, `stand_in` is a dbt that is
scripted, `driver` runs it, `oracle` knows the rules alone.
"""

"""The products that ship with the project; each folder is a code location of its own."""

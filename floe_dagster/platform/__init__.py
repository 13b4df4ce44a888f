"""The platform's services: bring them to a usable state, and say what is wrong with them."""

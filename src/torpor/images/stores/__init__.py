"""What stores there are: each keeps the images of one checkpoint behind the interface of ``images/store.py``."""

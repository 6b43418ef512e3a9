"""Sets of images: written as a whole or not at all, read as a whole.

writing     a new set, beside the old one until it is whole
places      where that is, and how it gets to where it is to be
settling    what those leave who are killed: finished, or removed
reading     one whole set, whatever is written meanwhile
contents    what it holds, for whoever looks only
"""

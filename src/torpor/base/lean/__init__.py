"""Stand-ins for modules of the standard library, of which a bundle takes them: the same names, a part of the price.

The sources import the standard modules; :mod:`torpor.base.bundling` exchanges them where a stand-in has all that is
wanted of one.  What they do is what the standard ones do, and the same tests say so.
"""

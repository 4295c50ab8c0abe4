"""Okabe and Ito's colours, which colour-blind readers can tell apart.

Dashes and markers differ too wherever they are used.
"""

BLUE, SKY, GREEN = "#0072B2", "#56B4E9", "#009E73"
ORANGE, VERMILLION, PURPLE, GREY = "#E69F00", "#D55E00", "#CC79A7", "#8C8C8C"

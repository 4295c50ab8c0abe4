"""Networks of several sizes trained for equal CPU time, compressed, and set side by side."""

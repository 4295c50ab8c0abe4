"""What became of a base: how far did each layer move, where to, and by what kind of change?"""

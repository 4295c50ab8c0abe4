"""Networks and copies of them that were changed in known ways: what `kinds_of_change.py` judges."""

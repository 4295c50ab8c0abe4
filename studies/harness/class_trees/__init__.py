"""Trees of classes: their accuracies beside their networks', and how far one correction goes."""

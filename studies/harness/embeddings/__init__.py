"""How the embeddings of a sentence encoder move when its weights change, told without labels."""

"""What does one trial record, from its first step to its end?"""

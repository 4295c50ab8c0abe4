"""Whose is a trial: who claims a place of the study, for how long, and who joins in?"""

"""How does a job that is no process of ours get its trial, and how is it judged?"""

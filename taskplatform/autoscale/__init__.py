"""Lets the number of workers follow the work: what is measured, what is decided, and who starts and stops workers."""

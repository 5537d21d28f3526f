"""The only folder that imports SGLang; see contract.py for what is touched and why."""

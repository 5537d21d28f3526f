"""How the prompts of a recurrent layer fall into chunks."""

"""What DCV reads where nothing happened, and where a known dose of damage was planted."""

"""What the discovery methods find on one base, how well they agree, and the page that says so."""

"""Results and weights become a release: folders that can be trusted, and their way to the Hub."""

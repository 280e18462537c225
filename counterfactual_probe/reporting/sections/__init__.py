"""What can be added to a report."""

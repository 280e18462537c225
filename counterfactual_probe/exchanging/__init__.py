"""What exchanging a module changes: cause, isolation, interaction, and how near hybrids are to own images."""

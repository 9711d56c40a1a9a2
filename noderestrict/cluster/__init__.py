"""What is known of the live cluster: stores kept by list and watch, and live look-ups."""

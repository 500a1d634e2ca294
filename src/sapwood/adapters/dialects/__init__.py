"""What each kind of database must be told differently, a file for each; they do not know one another."""

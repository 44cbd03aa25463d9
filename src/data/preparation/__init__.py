"""`stage=prepare`: from the rows of a source to the files of a setting, and whether they are whole."""

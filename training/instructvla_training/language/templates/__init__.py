"""The sentences themselves, as data: each group says which patterns train and which are held out."""

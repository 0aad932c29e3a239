"""Components that gather what others measured into the form a dataset reads."""

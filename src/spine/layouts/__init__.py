"""One file a backbone: the layouts in which other publishers than the authors have it."""

"""What all HTML pages share: templates, scripts, pictures and the file itself."""

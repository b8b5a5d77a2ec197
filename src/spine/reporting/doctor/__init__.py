"""The results of `spine doctor`: a table in the terminal, doctor.json and doctor.html."""

"""Examines a data set: python doctor.py dataset=image_folder dataset.root=photos."""

from spine.commands.doctor import main

if __name__ == "__main__":
    main()

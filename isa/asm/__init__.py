"""Assembly text: to images and back, and the listing that every view of a program is made of."""

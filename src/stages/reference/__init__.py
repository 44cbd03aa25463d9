"""The reference of everything a user may set, made from the declarations: on the screen and as pages."""
